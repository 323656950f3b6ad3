"""The web pages: rendered here from what the API answers, kept up to date by server-sent events, changed by calls of the API."""
