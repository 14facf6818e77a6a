"""CT volumes of simulated abdomens: anatomy, renal masses, look-alikes, the scanner."""
