//! Generates the messages between nodes and field tables of the public messages, without a system `protoc`.

use std::fmt::Write as _;
use std::path::PathBuf;

use protox::prost::Message;
use protox::prost_reflect::prost_types;
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
};

type Failed = Box<dyn std::error::Error>;

/// Public protocol files, in the order of the embedded descriptors.
const PUBLIC: [&str; 3] = ["peat/sidecar/v1/sidecar.proto", "peat/agent/v1/agent.proto", "grpc/health/v1/health.proto"];

fn main() -> Result<(), Failed> {
    println!("cargo:rerun-if-changed=proto");
    let mesh = protox::compile(["peat/mesh/v1/mesh.proto"], ["proto"])?;
    let mut public = protox::compile(PUBLIC, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let all = FileDescriptorSet { file: public.file.iter().chain(&mesh.file).cloned().collect() };
    std::fs::write(out.join("schema.rs"), Schema::of(&all)?.code()?)?;
    prost_build::Config::new().bytes([".peat.mesh.v1"]).compile_fds(mesh)?;
    for file in &mut public.file {
        file.source_code_info = None;
        let name = file.name().rsplit('/').next().unwrap_or_default().replace(".proto", ".bin");
        std::fs::write(out.join(name), file.encode_to_vec())?;
    }
    Ok(())
}

/// Returns the path of the Rust type generated for a message; map entries and foreign packages have none.
fn rust_type(message: &str) -> Option<String> {
    let (package, name) = message.trim_start_matches('.').rsplit_once('.')?;
    let module = match package {
        "peat.sidecar.v1" => "peat_ipc::sidecar",
        "peat.agent.v1" => "peat_ipc::agent",
        "peat.mesh.v1" => "crate::mesh",
        _ => return None,
    };
    Some(format!("{module}::{name}"))
}

/// The tables that `src/schema` declares the types of.
#[derive(Default)]
struct Schema {
    /// Messages with their full names, nested ones included.
    messages: Vec<(String, DescriptorProto)>,
    enums: Vec<(String, EnumDescriptorProto)>,
    /// All distinct names, concatenated; tables refer to them by offset and length.
    names: String,
    methods: Vec<(String, String)>,
}

impl Schema {
    fn of(files: &FileDescriptorSet) -> Result<Schema, Failed> {
        let mut schema = Schema::default();
        for file in &files.file {
            let package = format!(".{}", file.package());
            for message in &file.message_type {
                schema.add(&package, message);
            }
            for kind in &file.enum_type {
                schema.enums.push((format!("{package}.{}", kind.name()), kind.clone()));
            }
            for method in file.service.iter().filter(|service| service.name() == "PeatSidecar").flat_map(|s| &s.method)
            {
                schema.methods.push((method.input_type().into(), method.output_type().into()));
            }
        }
        Ok(schema)
    }

    fn add(&mut self, outer: &str, message: &DescriptorProto) {
        let name = format!("{outer}.{}", message.name());
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        for kind in &message.enum_type {
            self.enums.push((format!("{name}.{}", kind.name()), kind.clone()));
        }
        self.messages.push((name, message.clone()));
    }

    fn name(&mut self, name: &str) -> usize {
        // A name may overlap with others: any occurrence of its text will do.
        self.names.find(name).unwrap_or_else(|| {
            self.names.push_str(name);
            self.names.len() - name.len()
        })
    }

    fn message(&self, name: &str) -> Result<usize, Failed> {
        let found = self.messages.iter().position(|(known, _)| known == name);
        found.ok_or_else(|| format!("{name} is not a message").into())
    }

    fn code(mut self) -> Result<String, Failed> {
        let (mut fields, mut messages, mut values, mut enums) =
            (String::new(), String::new(), String::new(), String::new());
        let mut count = 0;
        for (_, message) in self.messages.clone() {
            let mut sorted = message.field.clone();
            sorted.sort_by_key(FieldDescriptorProto::number);
            for field in &sorted {
                writeln!(fields, "    {},", self.field(field)?)?;
            }
            writeln!(messages, "    ({count}, {}),", count + sorted.len())?;
            count += sorted.len();
        }
        count = 0;
        for (_, kind) in self.enums.clone() {
            for value in &kind.value {
                let (start, length) = (self.name(value.name()), value.name().len());
                writeln!(values, "    Value {{ number: {}, name: ({start}, {length}) }},", value.number())?;
            }
            writeln!(enums, "    ({count}, {}),", count + kind.value.len())?;
            count += kind.value.len();
        }
        let mut code = format!("static NAMES: &str = {:?};\n", self.names);
        writeln!(code, "static FIELDS: &[Field] = &[\n{fields}];\nstatic MESSAGES: &[(u16, u16)] = &[\n{messages}];")?;
        writeln!(code, "static VALUES: &[Value] = &[\n{values}];\nstatic ENUMS: &[(u16, u16)] = &[\n{enums}];")?;
        let methods: Result<String, Failed> =
            self.methods.iter().try_fold(String::new(), |mut text, (asks, answers)| {
                writeln!(text, "    (Index({}), Index({})),", self.message(asks)?, self.message(answers)?)?;
                Ok(text)
            });
        writeln!(code, "static METHODS: &[(Index, Index)] = &[\n{}];", methods?)?;
        self.described(&mut code)?;
        Ok(code)
    }

    /// Emits the mapping from Rust types to messages, and the size of each type in bytes; 0 for messages without a type.
    fn described(&self, code: &mut String) -> Result<(), Failed> {
        let mut sizes = String::new();
        for (index, (name, _)) in self.messages.iter().enumerate() {
            let Some(path) = rust_type(name) else {
                writeln!(sizes, "    0,")?;
                continue;
            };
            writeln!(code, "impl Described for {path} {{ const INDEX: Index = Index({index}); }}")?;
            writeln!(sizes, "    size_of::<{path}>(),")?;
        }
        writeln!(code, "static SIZES: &[usize] = &[\n{sizes}];")?;
        Ok(())
    }

    fn field(&mut self, field: &FieldDescriptorProto) -> Result<String, Failed> {
        let position = |list: Option<usize>| list.ok_or_else(|| format!("{} is not known", field.type_name()));
        let of = |schema: &Schema| position(schema.messages.iter().position(|(name, _)| name == field.type_name()));
        let repeated = field.label() == Label::Repeated;
        let kind = match field.r#type() {
            Type::Double => "Double".to_owned(),
            Type::Uint32 => "U32".to_owned(),
            Type::Uint64 => "U64".to_owned(),
            Type::Int64 => "I64".to_owned(),
            Type::Bool => "Bool".to_owned(),
            Type::String => "Text".to_owned(),
            Type::Bytes => "Bytes".to_owned(),
            Type::Enum => {
                let index = position(self.enums.iter().position(|(name, _)| name == field.type_name()))?;
                format!("Enum({index})")
            }
            Type::Message => {
                let index = of(self)?;
                let map = self.messages[index].1.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry);
                format!("{}(Index({index}))", if map { "Map" } else { "Message" })
            }
            other => return Err(format!("{}: {other:?} is missing in src/schema.rs", field.name()).into()),
        };
        if repeated && !matches!(field.r#type(), Type::String | Type::Bytes | Type::Enum | Type::Message) {
            return Err(format!("{}: repeated numbers are missing in src/schema", field.name()).into());
        }
        let optional = field.oneof_index.is_some();
        let (start, length) = (self.name(field.name()), field.name().len());
        Ok(format!(
            "Field {{ number: {}, name: ({start}, {length}), kind: FieldKind::{kind}, repeated: {repeated}, optional: {optional} }}",
            field.number()
        ))
    }
}
