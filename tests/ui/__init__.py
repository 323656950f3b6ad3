"""The web pages, in a real Chromium where somebody would look, and by plain requests where a program would."""
