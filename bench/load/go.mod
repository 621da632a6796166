module kube-registry/bench/load

go 1.24
