//! The tree of a template. Chains (`a + b + c`, `x.y[z] | f`, `elif`) are lists, not nested pairs, so that the
//! depth of the tree is the nesting that the parser limits.

use std::sync::Arc;

pub(super) type Name = Arc<str>;

#[derive(Debug)]
pub(super) struct Statement {
    pub line: u32,
    pub kind: StatementKind,
}

#[derive(Debug)]
pub(super) enum StatementKind {
    Data(Arc<str>),
    Output(Expr),
    For(Box<For>),
    /// Conditions with their bodies; the last may have none (`else`).
    If(Vec<(Option<Expr>, Vec<Statement>)>),
    Set(Vec<Target>, Expr),
    /// `{% set x | filter %}…{% endset %}`
    SetBlock(Target, Vec<Link>, Vec<Statement>),
    Macro(Arc<Macro>),
    /// `{% call m(…) %}…{% endcall %}`
    Call(Expr, Vec<Statement>),
    Filter(Vec<Link>, Vec<Statement>),
    With(Vec<(Target, Expr)>, Vec<Statement>),
    /// A body without a scope of its own (`generation`).
    Body(Vec<Statement>),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub targets: Vec<Target>,
    pub items: Expr,
    pub condition: Option<Expr>,
    pub body: Vec<Statement>,
    pub otherwise: Vec<Statement>,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub name: Name,
    pub parameters: Vec<(Name, Option<Expr>)>,
    pub body: Vec<Statement>,
}

/// What a value is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Name),
    /// `namespace.attribute`
    Attribute(Name, Name),
}

#[derive(Debug)]
pub(super) enum Expr {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// An odd number of `not`, or an even one (which still makes a bool).
    Not {
        odd: bool,
        of: Box<Expr>,
    },
    Negate {
        odd: bool,
        of: Box<Expr>,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Arithmetic(Box<Expr>, Vec<(Operator, Expr)>),
    /// `then if condition else otherwise`
    If {
        condition: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
    Chain(Box<Expr>, Vec<Link>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
    Concatenate,
}

/// What follows a value: `.name`, `[i]`, `[a:b:c]`, `(…)`, `| filter(…)`, `is test(…)`.
#[derive(Debug)]
pub(super) enum Link {
    Attribute(Name),
    Index(Expr),
    Slice([Option<Box<Expr>>; 3]),
    Call(Arguments),
    Filter(Name, Arguments),
    Test { name: Name, arguments: Arguments, negated: bool },
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Name, Expr)>,
}
