def write_page(path, items):
    pass
