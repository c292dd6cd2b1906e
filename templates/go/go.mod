module example.com/{{name}}

go 1.24

require walmill v0.0.0

replace walmill => ./walmill
