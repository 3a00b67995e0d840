"""The drive node and the policy process beside it."""
