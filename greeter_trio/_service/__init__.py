"""What a long-running server needs: one session for each client, limits, counters."""
