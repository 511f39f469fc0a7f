"""The gallery: a page on this machine where a person looks at the library, and paints where a picture shall change."""
