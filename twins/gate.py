"""The gate's rule as parts of SQL, for the rooms that ask it: the state of a purpose, and what it means now.

A statement has the twin as `t`, of `live_twins`, and `state` gives it the purpose's state as `d`. The view `decisions`
and the function `reason_of` have the rule. `LIMIT 1` changes no answer: without it the planner, which multiplies the
frequencies of twin and purpose, expects thousands of rows of a twin with many consents, and reads all. `(SELECT …)`
around the purpose of a twin that is named keeps its frequency from the planner: it then expects a row at most, as no
twin has more states than there are purposes. Extended statistics would not tell it so.
"""


def state(twin: str, purpose: str = "'general'") -> str:
    """Return the join that finds the state of a twin's purpose."""
    return f"""
        LEFT JOIN LATERAL (
            SELECT * FROM decisions WHERE twin_id = {twin} AND purpose = {purpose} LIMIT 1
        ) d ON true
    """  # noqa: S608 - parts of statements


def reason(
    recipient: str,
    *,
    lowest: str,
    modality: str = "NULL",
    territory: str = "NULL",
    principal: str = "NULL",
    is_unconfirmed: str = "t.is_unconfirmed",
    assurance: str = "d.assurance",
) -> str:
    """Return the expression of the gate's reason; `recipient` is NULL for the owner, whom each consent covers."""
    return f"""
        reason_of({is_unconfirmed}, t.stop_seq, d.seq, d.ended, d.standing, {assurance}, {lowest}, d.account,
                  {principal}, d.recipients, {recipient}, d.modalities, {modality}, d.territories, {territory})
    """


def general(lowest: str, recipient: str = "NULL", *, is_unconfirmed: str = "t.is_unconfirmed") -> str:
    """Return the reason for the use of a twin by this API itself: as text, and wherever that is."""
    return f"""
        reason_of({is_unconfirmed}, t.stop_seq, d.seq, d.ended, d.standing, d.assurance, {lowest}, NULL, NULL,
                  d.recipients, {recipient}, d.modalities, 'text', NULL, NULL)
    """
