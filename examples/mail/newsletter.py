"""Send a letter to everybody in a list, so many a minute; called again, it sends to nobody twice and tells how it stands.

    python newsletter.py people.csv letter.txt --sender me@example.org
    litetq worker mail.sqlite

people.csv has the columns name and email; the first line of letter.txt is the subject, and $name stands for the name.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections import Counter
from pathlib import Path
from string import Template

from tasks import send, tell


def main() -> None:
    parser = argparse.ArgumentParser(description="Send a letter to everybody in a list.")
    parser.add_argument("people", type=Path)
    parser.add_argument("letter", type=Path)
    parser.add_argument("--sender", required=True)
    parser.add_argument("--per-minute", type=int, default=60)
    parser.add_argument("--tell", metavar="WEBHOOK", help="also say in this chat how many were enqueued")
    said = parser.parse_args()

    letter = said.letter.read_text(encoding="utf-8")
    subject, _, text = letter.partition("\n")
    with said.people.open(encoding="utf-8", newline="") as file:
        people = list(csv.DictReader(file))

    enqueued = 0
    states: Counter[str] = Counter()
    for person in people:
        # The id says who gets which letter: a second call finds the task of the first.
        id = f"{hashlib.sha256(letter.encode()).hexdigest()[:12]}:{person['email']}"
        result = send.AsyncResult(id)
        if not result.exists():
            result = send.apply_async(
                (said.sender, person["email"], subject, Template(text).safe_substitute(person).strip()),
                task_id=id,
                countdown=enqueued * 60 / said.per_minute,
            )
            enqueued += 1
        states[result.state] += 1
        if result.failed():
            print(f"{person['email']}: {result.result}")
    print(
        f"{enqueued} enqueued now; of {len(people)}: {', '.join(f'{n} {state}' for state, n in sorted(states.items()))}"
    )
    if said.tell and enqueued:
        tell.delay(said.tell, f"{enqueued} letters are on their way: {subject}")


if __name__ == "__main__":
    main()
