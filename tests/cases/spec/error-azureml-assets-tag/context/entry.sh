echo {{image.name}}
