"""The last word: what three other tasks found, on one page."""


def write(day: str, traffic: dict, errors: list[dict], slowest: list[dict]) -> dict:
    """Print the report; return it with its headline."""
    worst = max(errors, key=lambda one: one["errors"], default=None)
    headline = (
        f"{worst['path']} failed {worst['errors']} times in the hour from {worst['hour']:02}:00 ({worst['percent']} %)"
        if worst
        else "nothing stands out"
    )
    lines = [
        f"# Access log of {day}",
        "",
        f"**{headline}**",
        "",
        f"- {traffic['hits']} hits, most of them in the hour from {traffic['busiest_hour']:02}:00",
        *(f"- {one['path']} at {one['hour']:02}:00: {one['percent']} % server errors" for one in errors),
        f"- slowest: {slowest[0]['path']} (median {slowest[0]['p50']} ms, 95 % within {slowest[0]['p95']} ms)",
    ]
    markdown = "\n".join(lines)
    print(markdown)
    return {"headline": headline, "alarms": len(errors), "markdown": markdown}
