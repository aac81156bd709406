from django.http import HttpResponseRedirect
from django.shortcuts import get_object_or_404, render

from . import tasks
from .forms import CommentForm
from .models import Post


def show_post(request, slug):
    post = get_object_or_404(Post, slug=slug)
    comments = post.comment_set.filter(is_spam=False)
    return render(request, "blog/post.html", {"post": post, "comments": comments, "form": CommentForm()})


def add_comment(request, slug):
    post = get_object_or_404(Post, slug=slug)
    form = CommentForm(request.POST or None)
    if form.is_valid():
        form.instance.post = post
        comment = form.save()
        # Not before the comment is committed, so that the worker finds it. What is rolled back is never sent.
        tasks.spam_filter.delay_on_commit(comment_id=comment.id, remote_addr=request.META.get("REMOTE_ADDR"))
        return HttpResponseRedirect(post.get_absolute_url())
    return render(request, "blog/post.html", {"post": post, "form": form})
