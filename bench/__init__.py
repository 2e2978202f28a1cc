"""Side by side with peers, in one run: `python -m bench`. Figures differ between machines; ratios are what to look at."""
