//! The handler of messages: which tools there are, and what a call of one does.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CustomRequest, CustomResult, ErrorCode,
    Implementation, JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::arguments::{NoArguments, RunArguments, read};
use super::error::Refused;
use super::progress::{LastLine, Progress};
use super::{result, tools};
use crate::http::languages::languages;
use crate::http::origin::Source;
use crate::http::run_request::RunRequest;
use crate::sandbox::{Owner, Sandboxes, Template};

/// How long clients may use a list of tools. It changes only when the server starts anew.
const LIST_TTL_MS: u64 = 60_000;

/// The methods of requests that a client with tools sends.
const METHODS: [&str; 5] = ["initialize", "ping", "server/discover", "tools/call", "tools/list"];

/// The sandboxes, once the engine has been found; otherwise the reason why there are none.
pub(super) type Opening = Shared<BoxFuture<'static, Result<Sandboxes, String>>>;

/// The tools, for one owner.
#[derive(Clone)]
pub(super) struct Server {
    templates: Vec<Arc<Template>>,
    sandboxes: Opening,
    owner: Owner,
    source: Source,
    with_images: bool,
}

impl Server {
    /// Creates the server of an owner's request.
    pub(super) fn new(sandboxes: Sandboxes, owner: Owner, source: Source, with_images: bool) -> Self {
        let templates = sandboxes.templates().to_vec();
        let sandboxes = futures::future::ready(Ok(sandboxes)).boxed().shared();
        Self { templates, sandboxes, owner, source, with_images }
    }

    /// Creates a server that lists its tools before its sandboxes are there.
    pub(super) fn opening(templates: Vec<Arc<Template>>, sandboxes: Opening, owner: Owner, with_images: bool) -> Self {
        Self { templates, sandboxes, owner, source: Source::default(), with_images }
    }

    async fn call(
        &self,
        tool: &str,
        arguments: Option<JsonObject>,
        progress: Option<Progress>,
    ) -> Result<CallToolResult, Refused> {
        if tool == tools::LIST_LANGUAGES {
            let NoArguments {} = read(arguments)?;
            let sandboxes = self.sandboxes.clone().await.map_err(Refused::new)?;
            let languages = serde_json::to_value(languages(&sandboxes));
            return Ok(CallToolResult::structured(languages.expect("our own shapes can be written as JSON")));
        }
        let request = RunRequest::from(read::<RunArguments>(arguments)?);
        let sandboxes = self.sandboxes.clone().await.map_err(Refused::new)?;
        let template = sandboxes.template(&request.language)?;
        let running = sandboxes.run(request.check(template, self.owner, self.source.clone().by("mcp"))?).await?;
        let last_line = LastLine::default();
        let timeout_ms = running.limits().timeout_ms;
        let report = running.report_with(|event| last_line.note(event));
        let report = match &progress {
            None => report.await,
            Some(progress) => tokio::select! {
                report = report => report,
                never = progress.show(&last_line, timeout_ms) => match never {},
            },
        };
        Ok(result::render(report, self.with_images))
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("oncebox", env!("CARGO_PKG_VERSION")))
            .with_instructions(tools::INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::tools(&self.templates).into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = tools::tools(&self.templates);
        Ok(ListToolsResult::with_all_items(tools).with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private))
    }

    /// Refuses a request that rmcp does not know, or whose parameters it cannot read.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method;
        if METHODS.contains(&method.as_str()) {
            return Err(ErrorData::invalid_params(format!("params: they are not those of `{method}`"), None));
        }
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("there is no method `{method}`"), None))
    }

    /// Calls a tool. If the client cancels the request, or does not wait for the answer, what the call has begun is
    /// dropped, which ends the run.
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tool = request.name.as_ref();
        if tool != tools::RUN_CODE && tool != tools::LIST_LANGUAGES {
            let known = [tools::RUN_CODE, tools::LIST_LANGUAGES].join(", ");
            return Err(ErrorData::invalid_params(format!("no tool is named `{tool}`; known tools: {known}"), None));
        }
        let progress = Progress::of(&context);
        let called = context.ct.run_until_cancelled(self.call(tool, request.arguments, progress)).await;
        let called = called.ok_or_else(|| ErrorData::internal_error("the call was cancelled", None))?;
        Ok(called.unwrap_or_else(CallToolResult::from).into())
    }
}
