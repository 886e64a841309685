"""Rules for callback URLs, and what they say is wrong with one."""

from milepost.domain.callback_url import CallbackRules, RefusedUrl, read_callback_url

RULES = CallbackRules()
PLAIN = CallbackRules(allow_http=True)


def problem_of(text: str, rules: CallbackRules = RULES) -> str | None:
    """What is wrong with `text`."""
    try:
        read_callback_url(text, rules)
    except RefusedUrl as refused:
        return refused.problem
    return None
