"""What fits an app into a framework."""
