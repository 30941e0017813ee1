# SPDX-License-Identifier: Apache-2.0
# The CUDA kernels and their check, where nvcc is found: in the PATH, $CUDACXX, $CUDA_HOME or
# /usr/local/cuda. Nothing else depends on them, and libcinch does not contain them.

option(CINCH_CUDA "Compile the CUDA kernels where nvcc is found" ON)
set(CINCH_CUDA_ARCHITECTURES "" CACHE STRING
  "What the CUDA kernels are compiled for, as CMAKE_CUDA_ARCHITECTURES; empty: all")

# Results are the host's bits only without contraction; denormals are kept unless asked otherwise.
set(CINCH_CUDA_ROUNDING --fmad=false)

# cinch_find_cuda(): in CINCH_CUDA_FOUND what the summary says. Sanitizers are for the host's code.
macro(cinch_find_cuda)
  set(CINCH_CUDA_FOUND "not asked for: CINCH_CUDA is off")
  if(CINCH_CUDA AND CINCH_SANITIZE)
    set(CINCH_CUDA_FOUND "no: not with a sanitizer")
  elseif(CINCH_CUDA)
    set(CINCH_CUDA_FOUND "no: nvcc was not found, or needs a C++ compiler that is not there")
    find_program(CINCH_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME PATHS /usr/local/cuda
      PATH_SUFFIXES bin)
    include(CheckLanguage)
    check_language(CXX)
    if(CINCH_NVCC AND CMAKE_CXX_COMPILER)
      execute_process(COMMAND ${CINCH_NVCC} --version OUTPUT_VARIABLE cinch_nvcc_says ERROR_QUIET)
      if(cinch_nvcc_says MATCHES "release [0-9.]+, V([0-9]+\\.[0-9]+\\.[0-9]+)")
        set(CINCH_NVCC_VERSION ${CMAKE_MATCH_1})
        cinch_cuda_architectures()
        set(CMAKE_CUDA_COMPILER ${CINCH_NVCC})
        enable_language(CUDA)
        set(CINCH_CUDA_FOUND "yes (${CINCH_NVCC_VERSION}), compiled, part of no library")
      endif()
    endif()
  endif()
endmacro()

# Machine code for what this nvcc knows of 8.0, 9.0 and 10.0, and PTX of the last for what comes after.
macro(cinch_cuda_architectures)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
  if(CINCH_NVCC_VERSION VERSION_LESS 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
  if(CINCH_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${CINCH_CUDA_ARCHITECTURES})
  endif()
endmacro()

# cinch_cuda_targets(): the kernels as a static library, and perf/gpu_check.
function(cinch_cuda_targets)
  if(NOT CMAKE_CUDA_COMPILER_LOADED)
    return()
  endif()
  file(GLOB kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/compress/cuda/*.cu)
  add_library(cinch_cuda_kernels STATIC ${kernels})
  file(GLOB check CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/perf/gpu_check*.cu)
  add_executable(gpu_check ${check} ${PROJECT_SOURCE_DIR}/perf/gpu_check_host.c
    ${PROJECT_SOURCE_DIR}/perf/json.c)
  target_link_libraries(gpu_check PRIVATE cinch_cuda_kernels $<TARGET_FILE:cinch_static>
    Threads::Threads ${CMAKE_DL_LIBS} m)
  cinch_link_optional(gpu_check)
  add_dependencies(gpu_check cinch_static)
  foreach(target cinch_cuda_kernels gpu_check)
    set_target_properties(${target} PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
      CUDA_RUNTIME_LIBRARY Static RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/perf)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
    target_compile_options(${target} PRIVATE 
      $<$<COMPILE_LANGUAGE:CUDA>:${CINCH_CUDA_ROUNDING} -Xcompiler=-ffp-contract=off,-Wall>)
    if(CINCH_WERROR)
      target_compile_options(${target} PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings -Xcompiler=-Werror>)
    endif()
  endforeach()
endfunction()
