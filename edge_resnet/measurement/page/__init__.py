"""Pages and charts that stand alone: colours, figures, HTML. Knows nothing of what they show."""
