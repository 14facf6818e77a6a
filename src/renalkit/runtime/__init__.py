"""Prediction without torch: engines that compute exported networks, and packages they come in."""
