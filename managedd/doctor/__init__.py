"""What `managedd doctor` finds out: whether this host can serve, and what to do where it can't.

`checks` look, `judgement` decides from what they saw (pure), `examination` goes through the checks. Nothing here changes what the daemon or its
runs use: what is made (a container or two, a network when the daemon has none, a listener) is removed again, also when interrupted.
"""
