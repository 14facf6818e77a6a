"""B-mode pictures of simulated kidneys: anatomy, masses, and the way of sound through them."""
