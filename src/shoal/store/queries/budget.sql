SELECT epsilon, delta, since FROM budget
