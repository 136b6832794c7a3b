"""Many runs that look for the best trade-off between how good a network is and how large; on Optuna."""
