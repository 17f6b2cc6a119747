"""Every documented way to run the software, run on a real container engine."""
