"""The conversation made visible: recordings, the trace, the page, and the demonstration.

All of them are made from the items of a transcript (greeter_core/TRANSCRIPT.md).
"""
