"""Streams: append-only logs of events with one owner, any number of readers, and a control state.

START HERE for pause, resume and cancel: `lifecycle`.
"""
