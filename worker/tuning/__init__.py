"""`predictor tune`: a past, a search over it, a verdict, and where the numbers go if they are worth it."""
