"""What a reader sees: terminal tables and progress, plots, the catalogue's site and its feed.

Importing any of it imports neither torch nor a drawing library.
"""
