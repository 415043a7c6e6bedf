//! The program; everything is in the library, [`peat_node::cli`] first.

fn main() -> std::process::ExitCode {
    peat_node::cli::main()
}
