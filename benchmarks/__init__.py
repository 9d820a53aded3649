"""Speed, as ratios against a ceiling of the same run."""
