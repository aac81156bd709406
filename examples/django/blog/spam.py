"""What stands here for a service like Akismet."""

WORDS = ("casino", "pills", "win money")


class SpamChecker:
    def comment_check(self, user_ip, comment_content, comment_author, comment_author_email):
        text = f"{comment_author} {comment_author_email} {comment_content}".lower()
        return any(word in text for word in WORDS)
