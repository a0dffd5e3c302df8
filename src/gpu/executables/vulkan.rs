//! A Vulkan device of our own beside wgpu's, which does not ask its pipelines for statistics. It
//! has the features that wgpu asks for, and no queue is used, so a driver over a device that is not
//! there will do.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

use ash::vk;
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{ModuleInfo, SubgroupOperationSet, ValidationFlags, Validator};

use super::{Executable, silent};
use crate::error::{Error, Result};
use crate::gpu::{Capabilities, PlannedKernel};

pub(super) struct Device {
    // Dropped in this order, by hand: the device goes before its instance, which goes before the
    // library.
    device: ash::Device,
    executables: ash::khr::pipeline_executable_properties::Device,
    instance: ash::Instance,
    _library: ash::Entry,
    spirv: (u8, u8),
    /// The device checks bounds of buffers, so naga need not.
    robust: bool,
    /// The driver may choose a subgroup's size.
    varying: bool,
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: nothing that was made of the device outlives a call of `compile`, and no queue
        // was used.
        #[allow(unsafe_code)]
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// A call that failed, as an error.
fn failed(what: &str) -> impl Fn(vk::Result) -> Error {
    move |result| Error::Adapter(format!("{what}: {result}"))
}

/// What wgpu-hal 30 asks for and no more (vulkan/adapter.rs): other features may change the code.
#[derive(Default)]
struct Features {
    core: vk::PhysicalDeviceFeatures,
    v11: vk::PhysicalDeviceVulkan11Features<'static>,
    v12: vk::PhysicalDeviceVulkan12Features<'static>,
    v13: Option<vk::PhysicalDeviceVulkan13Features<'static>>,
    robust: bool,
}

#[allow(unsafe_code)]
impl Features {
    fn of(instance: &ash::Instance, physical: vk::PhysicalDevice, api: u32, has_robustness2: bool) -> Self {
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
        let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
        let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
        let mut found = vk::PhysicalDeviceFeatures2::default().push_next(&mut v12).push_next(&mut v11);
        if has_robustness2 {
            found = found.push_next(&mut robustness);
        }
        let is_13 = api >= vk::API_VERSION_1_3;
        if is_13 {
            found = found.push_next(&mut v13);
        }
        // SAFETY: the chain holds structures that this version of the driver knows, all alive.
        unsafe { instance.get_physical_device_features2(physical, &mut found) };
        let core = found.features;
        Self {
            core: vk::PhysicalDeviceFeatures {
                robust_buffer_access: core.robust_buffer_access,
                shader_int16: core.shader_int16,
                shader_int64: core.shader_int64,
                shader_float64: core.shader_float64,
                ..Default::default()
            },
            v11: vk::PhysicalDeviceVulkan11Features::default()
                .storage_buffer16_bit_access(v11.storage_buffer16_bit_access != 0)
                .uniform_and_storage_buffer16_bit_access(v11.uniform_and_storage_buffer16_bit_access != 0),
            v12: vk::PhysicalDeviceVulkan12Features::default()
                .shader_float16(v12.shader_float16 != 0)
                .shader_int8(v12.shader_int8 != 0)
                .timeline_semaphore(v12.timeline_semaphore != 0)
                .vulkan_memory_model(v12.vulkan_memory_model != 0)
                .vulkan_memory_model_device_scope(v12.vulkan_memory_model_device_scope != 0),
            v13: is_13.then(|| {
                vk::PhysicalDeviceVulkan13Features::default()
                    .subgroup_size_control(v13.subgroup_size_control != 0)
                    .compute_full_subgroups(v13.compute_full_subgroups != 0)
                    .shader_zero_initialize_workgroup_memory(v13.shader_zero_initialize_workgroup_memory != 0)
                    .shader_integer_dot_product(v13.shader_integer_dot_product != 0)
                    .maintenance4(v13.maintenance4 != 0)
            }),
            robust: robustness.robust_buffer_access2 != 0,
        }
    }
}

#[allow(unsafe_code)]
impl Device {
    /// The device that wgpu reaches with these capabilities, with its checks of bounds where they are
    /// `robust`.
    pub(super) fn open(caps: &Capabilities, robust: bool) -> Result<Self> {
        // SAFETY: the library is the system's Vulkan loader, which wgpu has loaded before.
        let library = unsafe { ash::Entry::load() }.map_err(|e| Error::Adapter(format!("the Vulkan loader: {e}")))?;
        let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3).application_name(c"wgrad");
        // SAFETY: the information outlives the call.
        let instance = unsafe { library.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None) };
        let instance = instance.map_err(failed("a Vulkan instance"))?;
        let opened = Self::of_instance(&instance, caps, robust);
        match opened {
            Ok((device, features)) => {
                let executables = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
                let spirv = if features.v13.is_some() { (1, 6) } else { (1, 5) };
                let varying = features.v13.is_some_and(|f| f.subgroup_size_control != 0);
                Ok(Self { device, executables, instance, _library: library, spirv, robust: features.robust, varying })
            }
            Err(error) => {
                // SAFETY: nothing was made of it that is still there.
                unsafe { instance.destroy_instance(None) };
                Err(error)
            }
        }
    }

    fn of_instance(instance: &ash::Instance, caps: &Capabilities, robust: bool) -> Result<(ash::Device, Features)> {
        let name = &caps.name;
        // SAFETY: the instance is alive.
        let all = unsafe { instance.enumerate_physical_devices() }.map_err(failed("Vulkan's devices"))?;
        let properties = |device: &vk::PhysicalDevice| {
            // SAFETY: the device is one of the instance's.
            unsafe { instance.get_physical_device_properties(*device) }
        };
        let is_wanted =
            |device: &vk::PhysicalDevice| properties(device).device_name_as_c_str().is_ok_and(|n| n.to_string_lossy() == name.as_str());
        let physical = all.into_iter().find(is_wanted).ok_or_else(|| Error::Adapter(format!("Vulkan has no device {name}")))?;
        // SAFETY: as above.
        let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }.map_err(failed("a device's extensions"))?;
        let has = |name: &CStr| extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
        if !has(ash::khr::pipeline_executable_properties::NAME) {
            return Err(silent(caps, "the driver has no VK_KHR_pipeline_executable_properties, so it does not say what it compiles"));
        }
        let mut features = Features::of(instance, physical, properties(&physical).api_version, has(ash::ext::robustness2::NAME));
        if !robust {
            (features.core.robust_buffer_access, features.robust) = (vk::FALSE, false);
        }
        let mut names = vec![ash::khr::pipeline_executable_properties::NAME.as_ptr()];
        let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
        let mut statistics = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
        let queue = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
        let Features { core, mut v11, mut v12, mut v13, robust } = std::mem::take(&mut features);
        if robust {
            names.push(ash::ext::robustness2::NAME.as_ptr());
        }
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queue)
            .enabled_extension_names(&names)
            .enabled_features(&core)
            .push_next(&mut v12)
            .push_next(&mut v11)
            .push_next(&mut statistics);
        if let Some(v13) = &mut v13 {
            info = info.push_next(v13);
        }
        if robust {
            info = info.push_next(&mut robustness);
        }
        // SAFETY: the chain holds structures that this version of the driver knows, all alive.
        let device = unsafe { instance.create_device(physical, &info, None) }.map_err(failed("a Vulkan device"))?;
        // The chain's pointers end here.
        (v11.p_next, v12.p_next) = (std::ptr::null_mut(), std::ptr::null_mut());
        v13.iter_mut().for_each(|f| f.p_next = std::ptr::null_mut());
        Ok((device, Features { core, v11, v12, v13, robust }))
    }

    pub(super) fn compile(&self, kernel: &PlannedKernel, entry: &str, texts: bool) -> Result<Vec<Executable>> {
        let shader = Shader::new(kernel, entry, self.spirv, self.robust)?;
        let refused = |result: vk::Result| Error::shader(&kernel.kernel, format!("the driver does not compile {entry}: {result}"));
        let mut made = Made { device: &self.device, module: None, sets: Vec::new(), layout: None, pipeline: None };
        // SAFETY: the SPIR-V comes from a validated module, the layouts are those that it declares,
        // and all that is made is destroyed by `made`.
        unsafe {
            let module =
                self.device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&shader.words), None).map_err(refused)?;
            made.module = Some(module);
            for group in &shader.groups {
                let bindings: Vec<_> = group
                    .iter()
                    .map(|(binding, kind)| {
                        vk::DescriptorSetLayoutBinding::default()
                            .binding(*binding)
                            .descriptor_count(1)
                            .descriptor_type(*kind)
                            .stage_flags(vk::ShaderStageFlags::COMPUTE)
                    })
                    .collect();
                let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
                made.sets.push(self.device.create_descriptor_set_layout(&info, None).map_err(refused)?);
            }
            let range = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(shader.immediates)];
            let mut layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&made.sets);
            if shader.immediates > 0 {
                layout = layout.push_constant_ranges(&range);
            }
            let layout = self.device.create_pipeline_layout(&layout, None).map_err(refused)?;
            made.layout = Some(layout);
            let entry = CString::new(entry).map_err(|e| Error::shader(&kernel.kernel, e.to_string()))?;
            let mut stage = vk::PipelineShaderStageCreateInfo::default().stage(vk::ShaderStageFlags::COMPUTE).module(module).name(&entry);
            if self.varying {
                stage = stage.flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE);
            }
            let mut flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR;
            if texts {
                flags |= vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            }
            let info = vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout);
            let list = self.device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None).map_err(|(_, e)| refused(e))?;
            made.pipeline = list.first().copied();
            self.executables(made.pipeline.unwrap_or_default(), texts).map_err(refused)
        }
    }

    /// # Safety
    /// The pipeline is one of this device that captures statistics, and representations where
    /// `texts` are wanted.
    unsafe fn executables(&self, pipeline: vk::Pipeline, texts: bool) -> std::result::Result<Vec<Executable>, vk::Result> {
        let all = vk::PipelineInfoKHR::default().pipeline(pipeline);
        let mut list = Vec::new();
        // SAFETY: as promised to this function.
        for (index, properties) in unsafe { self.executables.get_pipeline_executable_properties(&all) }?.iter().enumerate() {
            let which = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(index as u32);
            let mut executable = Executable { subgroup_size: properties.subgroup_size, ..Default::default() };
            // SAFETY: as above; the member that is read of each value is the one that its format names.
            unsafe {
                for s in self.executables.get_pipeline_executable_statistics(&which)? {
                    let value = match s.format {
                        vk::PipelineExecutableStatisticFormatKHR::BOOL32 => f64::from(s.value.b32),
                        vk::PipelineExecutableStatisticFormatKHR::INT64 => s.value.i64 as f64,
                        vk::PipelineExecutableStatisticFormatKHR::UINT64 => s.value.u64 as f64,
                        _ => s.value.f64,
                    };
                    let name = s.name_as_c_str().map_or_else(|_| String::new(), |n| n.to_string_lossy().into_owned());
                    executable.statistics.insert(name, value);
                }
                if texts {
                    executable.texts = self.texts(&which)?;
                }
            }
            list.push(executable);
        }
        Ok(list)
    }

    /// ash's wrapper asks for sizes only, so this goes by the raw function: once for the number,
    /// once for sizes, once for texts.
    ///
    /// # Safety
    /// As [`Self::executables`].
    unsafe fn texts(&self, which: &vk::PipelineExecutableInfoKHR<'_>) -> std::result::Result<BTreeMap<String, String>, vk::Result> {
        let call = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let handle = self.device.handle();
        let mut count = 0;
        // SAFETY: the list has room for as many as are asked for, and each text for as many bytes
        // as the driver said it has.
        unsafe {
            call(handle, which, &mut count, std::ptr::null_mut()).result()?;
            let mut list = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            call(handle, which, &mut count, list.as_mut_ptr()).result()?;
            let mut texts: Vec<Vec<u8>> = list.iter().map(|r| vec![0; r.data_size]).collect();
            for (representation, text) in list.iter_mut().zip(&mut texts) {
                representation.p_data = text.as_mut_ptr().cast();
            }
            call(handle, which, &mut count, list.as_mut_ptr()).result()?;
            let name = |r: &vk::PipelineExecutableInternalRepresentationKHR<'_>| {
                r.name_as_c_str().map_or_else(|_| String::new(), |n| n.to_string_lossy().into_owned())
            };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string();
            Ok(list.iter().zip(&texts).filter(|(r, _)| r.is_text != 0).map(|(r, t)| (name(r), text(t))).collect())
        }
    }
}

/// What a compilation made, destroyed at its end.
struct Made<'a> {
    device: &'a ash::Device,
    module: Option<vk::ShaderModule>,
    sets: Vec<vk::DescriptorSetLayout>,
    layout: Option<vk::PipelineLayout>,
    pipeline: Option<vk::Pipeline>,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        // SAFETY: each was made by this device and is used by nothing else.
        #[allow(unsafe_code)]
        unsafe {
            self.pipeline.iter().for_each(|p| self.device.destroy_pipeline(*p, None));
            self.layout.iter().for_each(|l| self.device.destroy_pipeline_layout(*l, None));
            self.sets.iter().for_each(|s| self.device.destroy_descriptor_set_layout(*s, None));
            self.module.iter().for_each(|m| self.device.destroy_shader_module(*m, None));
        }
    }
}

/// SPIR-V of one entry point, and what it declares.
struct Shader {
    words: Vec<u32>,
    /// Bindings of each group.
    groups: Vec<Vec<(u32, vk::DescriptorType)>>,
    /// Bytes of immediates.
    immediates: u32,
}

impl Shader {
    fn new(kernel: &PlannedKernel, entry: &str, version: (u8, u8), robust: bool) -> Result<Self> {
        // naga does not know the line that browsers demand.
        let text = kernel.text.replace("enable subgroups;\n", "");
        let refused = |message: String| Error::shader(&kernel.kernel, message);
        let module = naga::front::wgsl::parse_str(&text).map_err(|e| refused(e.emit_to_string(&text)))?;
        let mut validator = Validator::new(ValidationFlags::all(), naga::valid::Capabilities::all());
        validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
        let info = validator.validate(&module).map_err(|e| refused(e.emit_to_string(&text)))?;
        let words = Self::words(&module, &info, kernel.checked, entry, version, robust).map_err(|e| refused(e.to_string()))?;
        let (mut groups, mut immediates): (Vec<Vec<_>>, u32) = (Vec::new(), 0);
        for (_, variable) in module.global_variables.iter() {
            let kind = match variable.space {
                naga::AddressSpace::Storage { .. } => vk::DescriptorType::STORAGE_BUFFER,
                naga::AddressSpace::Uniform => vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC,
                naga::AddressSpace::Immediate => {
                    let size = module.types.get_handle(variable.ty).map_or(0, |t| t.inner.size(module.to_ctx()));
                    immediates = size.next_multiple_of(4);
                    continue;
                }
                _ => continue,
            };
            if let Some(at) = &variable.binding {
                groups.resize_with(groups.len().max(at.group as usize + 1), Vec::new);
                groups.iter_mut().skip(at.group as usize).take(1).for_each(|group| group.push((at.binding, kind)));
            }
        }
        Ok(Self { words, groups, immediates })
    }

    /// With the options of wgpu-hal 30 (vulkan/adapter.rs, vulkan/device.rs).
    fn words(
        module: &naga::Module,
        info: &ModuleInfo,
        checked: bool,
        entry: &str,
        version: (u8, u8),
        robust: bool,
    ) -> std::result::Result<Vec<u32>, spv::Error> {
        use BoundsCheckPolicy::{Restrict, Unchecked};
        let index = if checked { Restrict } else { Unchecked };
        let buffer = if checked && !robust { Restrict } else { Unchecked };
        let zero = match checked {
            true => spv::ZeroInitializeWorkgroupMemoryMode::Native,
            false => spv::ZeroInitializeWorkgroupMemoryMode::None,
        };
        let options = spv::Options {
            lang_version: version,
            flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
            capabilities: None,
            bounds_check_policies: BoundsCheckPolicies { index, buffer, image_load: Unchecked, binding_array: Unchecked },
            zero_initialize_workgroup_memory: zero,
            force_loop_bounding: checked,
            emit_int_div_checks: checked,
            ..Default::default()
        };
        let pipeline = spv::PipelineOptions { entry_point: entry.into(), shader_stage: naga::ShaderStage::Compute };
        spv::write_vec(module, info, &options, Some(&pipeline))
    }
}
