"""Digital renal phantoms whose truth is known exactly."""
