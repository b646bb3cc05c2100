"""What a process is set up with: its device, threads, precision, seeds and progress."""
