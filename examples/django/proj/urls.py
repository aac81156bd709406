from blog import views
from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("<slug:slug>/", views.show_post, name="post"),
    path("<slug:slug>/comment/", views.add_comment, name="add-comment"),
]
