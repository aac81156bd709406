"""What Celery has beside the queue."""
