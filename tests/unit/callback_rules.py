"""Rules for callback URLs, and the problem that they find with one."""

from milepost.domain.callback_url import CallbackRules, RefusedUrl, read_callback_url

RULES = CallbackRules()
PLAIN = CallbackRules(allow_http=True)


def problem_of(text: str, rules: CallbackRules = RULES) -> str | None:
    """Return the problem with `text`."""
    try:
        read_callback_url(text, rules)
    except RefusedUrl as refused:
        return refused.problem
    return None
