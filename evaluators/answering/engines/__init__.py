"""What answers prompts with a candidate's weights: one engine a file."""
