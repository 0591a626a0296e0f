//! `mcpmon tools`: what the services offer, as last listed.

use mcpmon_core::observation::ListedItem;
use mcpmon_core::store::{ListRecord, StoredService};
use mcpmon_core::{ServiceName, Timestamp};
use serde::Serialize;

use super::Form;
use super::archive::{Archive, unknown_service};
use crate::exit::{CliError, Exit};
use crate::output::{self, Align, Cell, Output, Table};
use crate::paths::Paths;

/// Shows the tools of the services, as last listed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only of this service.
    name: Option<String>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    services: Vec<ServiceTools>,
}

#[derive(Serialize)]
struct ServiceTools {
    service: ServiceName,
    /// When the lists were first seen as they are; `None` if they were never read.
    listed_at: Option<Timestamp>,
    /// Changes whenever one of the lists or the instructions do.
    hash: Option<String>,
    tools: Vec<ListedItem>,
    prompts_count: usize,
    resources_count: usize,
    prompts: Vec<ListedItem>,
    resources: Vec<ListedItem>,
    resource_templates: Vec<ListedItem>,
    /// The server's instructions for a model.
    instructions: Option<String>,
}

impl ServiceTools {
    fn new(service: ServiceName, record: Option<ListRecord>) -> Self {
        let Some(ListRecord { at, lists, .. }) = record else {
            return Self {
                service,
                listed_at: None,
                hash: None,
                tools: Vec::new(),
                prompts_count: 0,
                resources_count: 0,
                prompts: Vec::new(),
                resources: Vec::new(),
                resource_templates: Vec::new(),
                instructions: None,
            };
        };
        Self {
            service,
            listed_at: Some(at),
            hash: Some(lists.hash),
            tools: lists.tools,
            prompts_count: lists.prompts.len(),
            resources_count: lists.resources.len(),
            prompts: lists.prompts,
            resources: lists.resources,
            resource_templates: lists.resource_templates,
            instructions: lists.instructions,
        }
    }
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let archive = Archive::open(&paths.database())?;
    let known = archive.any().services().await?;
    let mut report = Report { schema: "mcpmon/tools/v1", services: Vec::new() };
    for name in chosen(args.name.as_deref(), &known)? {
        let lists = archive.any().lists(&name).await?;
        report.services.push(ServiceTools::new(name, lists));
    }
    match args.output {
        Form::Json => output.json(&report),
        Form::Table => show(&report, output),
    }
    Ok(Exit::Ok)
}

fn chosen(name: Option<&str>, known: &[StoredService]) -> Result<Vec<ServiceName>, CliError> {
    let names = || known.iter().map(|service| &service.facts.service);
    match name {
        None => Ok(known
            .iter()
            .filter(|service| service.facts.watched)
            .map(|service| service.facts.service.clone())
            .collect()),
        Some(name) => match names().find(|known| known.as_str() == name) {
            Some(found) => Ok(vec![found.clone()]),
            None => Err(unknown_service(name, names().map(ServiceName::as_str))),
        },
    }
}

fn show(report: &Report, output: &Output) {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("TOOL", Align::Left),
        ("DESCRIPTION", Align::Left),
    ]);
    let mut rows = 0;
    for service in &report.services {
        for tool in &service.tools {
            let definition = tool.definition.value();
            let description = definition.get("description").and_then(|text| text.as_str());
            let first_line = description.and_then(|text| text.trim().lines().next());
            table.row([
                Cell::new(service.service.as_str()),
                Cell::new(&tool.name),
                Cell::new(first_line.unwrap_or_default()),
            ]);
            rows += 1;
        }
    }
    if rows == 0 {
        return output::say("no tools have been listed yet");
    }
    output.text(&table.render(output.width(), output.look()));
}
