//! Generates the messages that clients use, without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../proto";
    let files = ["peat/ipc/v1/ipc.proto", "peat/sidecar/v1/sidecar.proto", "peat/agent/v1/agent.proto"];
    println!("cargo:rerun-if-changed={root}");
    let descriptors = protox::compile(files, [root])?;
    prost_build::Config::new().bytes([".peat.ipc.v1"]).compile_fds(descriptors)?;
    Ok(())
}
