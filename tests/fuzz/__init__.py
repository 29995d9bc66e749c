"""Fuzzing: hostile input for every reader of bytes, by the million. ``make fuzz`` runs it.

``targets`` lists what is fuzzed, ``cases`` what all targets share, ``runner`` counts and reports.
"""
