"""Programs around the unmodified clients of google.longrunning, one for each language.

Each is called as `PROGRAM ADDRESS VERB [NAME]`, with the key in MILEPOST_API_KEY and the seconds
that a poll may be held in HOLD_S. The verbs are those of a future: `wait`, `cancel`, `delete`,
`list`. Each line of the output is a JSON object: `status` and `progress` after the first poll that
finds the operation active, then its `value` or its `error`, or the `names` of a list, or `deleted`.
"""
