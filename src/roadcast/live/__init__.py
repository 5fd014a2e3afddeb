"""What is newest, for those who watch: lossy and bounded, unlike the log."""
