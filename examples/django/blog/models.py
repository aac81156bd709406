from django.db import models
from django.urls import reverse


class Post(models.Model):
    slug = models.SlugField(unique=True)
    title = models.CharField(max_length=200)

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("post", args=[self.slug])


class Comment(models.Model):
    post = models.ForeignKey(Post, on_delete=models.CASCADE)
    name = models.CharField(max_length=100)
    email_address = models.EmailField()
    comment = models.TextField()
    is_spam = models.BooleanField(null=True, editable=False)  # None: the filter has not looked yet

    def __str__(self):
        return f"{self.name}: {self.comment[:50]}"
