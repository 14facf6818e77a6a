"""The only home of torch: networks, losses, data loading and the training loop."""
