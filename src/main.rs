//! Entry point. All code is in the library; start at [`peat_node::cli`].

fn main() -> std::process::ExitCode {
    peat_node::cli::main()
}
