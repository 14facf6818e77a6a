"""What the toolkit talks about: images, studies, cohorts, splits, samples, predictions."""
