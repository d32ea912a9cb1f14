"""Which pictures go first when space is short: those the hub holds, those set aside, then from the least telling up."""

SENT = 0
SET_ASIDE = 1
RANKS = {"collect": 2, "near_threshold": 3, "audit": 4, "disagree": 5, "inconclusive": 6, "ng": 7}
HIGHEST = max(RANKS.values())


def rank_of(why: str) -> int:
    """The rank of a picture that waits; a reason nobody ranked yet comes last."""
    return RANKS.get(why, RANKS["collect"])
