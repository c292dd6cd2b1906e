module walmill

go 1.24
