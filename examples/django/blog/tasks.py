from celery import shared_task
from celery.utils.log import get_task_logger

from .models import Comment
from .spam import SpamChecker

logger = get_task_logger(__name__)


@shared_task
def spam_filter(comment_id, remote_addr=None):
    """Look at a comment; return whether it is spam."""
    logger.info("Running spam filter for comment %s", comment_id)
    comment = Comment.objects.get(pk=comment_id)
    comment.is_spam = SpamChecker().comment_check(
        user_ip=remote_addr,
        comment_content=comment.comment,
        comment_author=comment.name,
        comment_author_email=comment.email_address,
    )
    comment.save(update_fields=["is_spam"])
    return comment.is_spam


@shared_task
def forget_spam():
    """Delete what the filter has found; return how much that was. Give it an interval in the admin."""
    return Comment.objects.filter(is_spam=True).delete()[0]


@shared_task
def say(text):
    return f"{text}, and welcome"
