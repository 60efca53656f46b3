"""Code that an application in C++ needs beside a model file: templates, and what is written from the manifest."""
